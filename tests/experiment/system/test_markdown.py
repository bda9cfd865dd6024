from __future__ import annotations

from experiment.system.markdown import table


def test_a_table_has_a_line_for_its_heads_and_for_each_row() -> None:
    assert table(["", "loss"], [["a", 0.5], ("b", None)]).splitlines() == [
        "|  | loss |",
        "| --- | --- |",
        "| a | 0.5 |",
        "| b | None |",
    ]

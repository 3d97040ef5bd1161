"""On a narrow terminal the bars give way, not the words."""

from ayllu.cli.main import run


def test_a_narrow_table_of_next_tokens_keeps_its_words(tiny_checkpoint, capsys, monkeypatch):
    found = {}
    for columns in (32, 90):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert run(["next", "The fox", "--model", str(tiny_checkpoint), "--k", "4", "--seed", "1"]) == 0
        lines = capsys.readouterr().out.splitlines()
        rows = [line.split() for line in lines if "%" in line]
        found[columns] = [row[:-1] if "█" in row[-1] else row for row in rows]
        assert any("next token" in line for line in lines)
        assert max(map(len, lines)) <= columns
    assert found[32] == found[90]
    assert len(found[32]) == 4

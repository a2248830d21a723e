"""The bar of a terminal, and the lines of anything else."""

from io import StringIO

from admin.progress import WIDTH, Progress, bar


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_bar_that_goes_away() -> None:
    terminal = Terminal()
    progress = Progress(terminal, "keys", 200)
    for done in range(0, 201, 1):
        progress.tell(done)
    text = terminal.getvalue()
    assert text.count("\r") == 101
    assert text.endswith(f"\r[{'#' * WIDTH}] 100% 200/200 keys")
    progress.end()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_anything_else_has_a_line_a_tenth_where_there_is_much_to_do() -> None:
    log = StringIO()
    progress = Progress(log, "keys", 5000)
    for done in (0, 10, 500, 600, 5000, 5000):
        progress.tell(done)
    progress.end()
    assert log.getvalue() == "500 of 5000 keys\n5000 of 5000 keys\n"


def test_little_to_do_is_not_worth_a_line() -> None:
    log = StringIO()
    for total in (0, 999):
        Progress(log, "keys", total).tell(total)
    assert log.getvalue() == ""


def test_a_bar_is_as_long_whatever_is_done() -> None:
    assert {len(bar(part / 7)) for part in range(8)} == {WIDTH + 7}

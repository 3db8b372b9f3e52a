from heliograph.pipeline.bulk.progress import RowProgress, Rows


def test_the_line_says_where_it_is_how_fast_and_how_long_it_takes() -> None:
    rows = Rows(total=40_000, before=10_000, translated=2_000, failed=3, seconds=10.0)
    assert rows.done == 0.3
    expected = " 30% · 12,000 of 40,000 rows · 3 failed · 200 rows/s · 2:20 left"
    assert rows.line(140.4) == expected


def test_what_an_earlier_start_did_counts_as_done_and_not_as_speed() -> None:
    progress = RowProgress(total=100, before=40)
    progress.add(translated=10, failed=1)
    progress.add(translated=10, failed=0)
    rows = progress.read()
    assert (rows.done, rows.translated, rows.failed) == (0.6, 20, 1)
    assert rows.seconds > 0

"""Write one page about a bank: `python -m memscore.report STORE`."""

import sys
from typing import Annotated

from memscore.cli.app import run_command
from memscore.cli.stop_signals import quiet_interrupt, quiet_interrupt_during_imports

if __name__ == "__main__":
    quiet_interrupt()

import tyro

from memscore.cli.command_line import call_command
from memscore.cli.options import Maybe
from memscore.report.page_options import PageOptions
from memscore.tables.console import open_console, print_line
from memscore.units import format_count, format_size

PROG = "python -m memscore.report"
EXAMPLE = "~/memscore/digits --out digits.html"
DEFAULT_OPTIONS = PageOptions()


def write_report(
    store: Annotated[Maybe[str], tyro.conf.Positional] = None,
    out: Maybe[str] = None,
    options: Annotated[PageOptions, tyro.conf.arg(name="")] = DEFAULT_OPTIONS,
    tables: Maybe[str] = None,
    image_column: Maybe[str] = None,
) -> int:
    """Write one HTML page about a bank that needs no network: scores, images, attacks, proxies, unlearning, audits.

    What cannot be read, as a damaged file, is named on the page with what to do; everything else is shown.

    Args:
        store: path or URL of the bank (default: the one used last in $MEMSCORE_HOME or ~/memscore).
        out: path of the page (default: NAME.html in the current folder, where NAME is the store's).
        options: what is on the page.
        tables: folder to which every table of the page is written too, as CSV and as Markdown.
        image_column: Parquet file to which scores.parquet is written with the images in a column, as viewers of data
            sets open it; it must not exist yet.

    Returns:
        Exit code 0, also for a page on which something could not be shown: the page and the terminal name it.

    Raises:
        ValueError: --image-column without images.
    """
    with quiet_interrupt_during_imports():
        from memscore.monitoring.default_store import choose_store
        from memscore.report.build import build_page
        from memscore.report.files import plan_files, write_files
        from memscore.report.image_column import plan_image_column, write_image_column
        from memscore.report.table_files import write_tables
        from memscore.store.store import Store

    console = open_console()
    bank = Store.open(choose_store(store))
    files = plan_files(bank.folder.display_name, out)
    target = None if image_column is None else plan_image_column(image_column)
    page = build_page(bank, options, files.folder.name)
    size = write_files(files, page.html, page.files)
    for omission in page.omissions:
        print_line(console, f"[yellow]not shown[/] {omission.what}: {omission.reason}", markup=True)
    print_line(console, f"page    {files.page}: {format_count(page.examples.n, 'example')}, {format_size(size)}")
    if page.files:
        print_line(console, f"beside  {files.folder}: {format_count(len(page.files), 'file')} with the other images")
    if tables is not None:
        count = write_tables(tables, [table for part in page.parts for table in part.list_tables()])
        print_line(console, f"tables  {tables}: {format_count(count, 'table')} as .csv and .md")
    if target is not None:
        if page.images.splits is None:
            raise ValueError(f"--image-column {image_column}: the images could not be read; the page names the reason")
        rows = write_image_column(target, page.examples.table, page.images.splits, bank.class_names)
        print_line(console, f"images  {target}: {format_count(rows, 'row')} with an image each")
    return 0


def main(arguments: list[str] | None = None, prog: str = PROG) -> int:
    """Run the command; user errors are one line and exit code 2, Ctrl-C is 130."""
    return run_command(lambda: call_command(write_report, prog, arguments, EXAMPLE))


if __name__ == "__main__":
    sys.exit(main())

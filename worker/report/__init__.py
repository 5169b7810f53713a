"""One self-contained page about a job: what was scored, how far to trust it, how to repeat it.

`data.read_report` reads (through the store's queries, no SQL here), `charts` draws, `page.render` writes HTML.
Importing this package imports no Jinja2.
"""

"""Workbooks in a few lines: xlsx and ods, as zip archives of XML."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_SHEETS = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OPEN = "urn:oasis:names:tc:opendocument:xmlns"

Rows = Sequence[Sequence[Any]]


def write_xlsx(path: Path, sheets: Mapping[str, Rows], hidden: str = "") -> Path:
    """A cell is a text, a number, a boolean, None, or ("date", days since 1900), ("error", "#N/A")."""
    named = list(enumerate(sheets, 1))
    hide = ' state="hidden"'
    listed = "".join(
        f'<sheet name="{escape(name)}" sheetId="{at}" r:id="r{at}"{hide * (name == hidden)}/>'
        for at, name in named
    )
    related = "".join(
        f'<Relationship Id="r{at}" Type="{_OFFICE}/worksheet" Target="worksheets/sheet{at}.xml"/>'
        for at, _ in named
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", f'<Types xmlns="{_PACKAGE}/content-types"/>')
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{_PACKAGE}/relationships">'
            f'<Relationship Id="r1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{_SHEETS}" xmlns:r="{_OFFICE}"><sheets>{listed}</sheets></workbook>',
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{_PACKAGE}/relationships">{related}</Relationships>',
        )
        archive.writestr(
            "xl/styles.xml",
            f'<styleSheet xmlns="{_SHEETS}"><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs></styleSheet>',
        )
        for at, rows in enumerate(sheets.values(), 1):
            body = "".join(_row(row, row_no) for row_no, row in enumerate(rows, 1))
            archive.writestr(
                f"xl/worksheets/sheet{at}.xml",
                f'<worksheet xmlns="{_SHEETS}"><sheetData>{body}</sheetData></worksheet>',
            )
    return path


def _row(row: Sequence[Any], row_no: int) -> str:
    cells = "".join(_cell(cell, f"{chr(64 + column)}{row_no}") for column, cell in enumerate(row, 1))
    return f'<row r="{row_no}">{cells}</row>'


def _cell(cell: Any, place: str) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return f'<c r="{place}" t="inlineStr"><is><t xml:space="preserve">{escape(cell)}</t></is></c>'
    kind, value = cell if isinstance(cell, tuple) else ("", cell)
    marks = {"date": ' s="1"', "error": ' t="e"'}.get(kind, ' t="b"' if isinstance(cell, bool) else "")
    return f'<c r="{place}"{marks}><v>{int(value) if isinstance(value, bool) else value}</v></c>'


def write_ods(path: Path, rows: Rows) -> Path:
    """A sheet of texts and numbers."""
    body = "".join(f"<table:table-row>{''.join(map(_ods_cell, row))}</table:table-row>" for row in rows)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr(
            "META-INF/manifest.xml",
            f'<manifest:manifest xmlns:manifest="{_OPEN}:manifest:1.0"><manifest:file-entry manifest:full-path="/" '
            'manifest:media-type="application/vnd.oasis.opendocument.spreadsheet"/></manifest:manifest>',
        )
        archive.writestr(
            "content.xml",
            f'<office:document-content xmlns:office="{_OPEN}:office:1.0" xmlns:table="{_OPEN}:table:1.0" '
            f'xmlns:text="{_OPEN}:text:1.0"><office:body><office:spreadsheet><table:table table:name="S">{body}'
            "</table:table></office:spreadsheet></office:body></office:document-content>",
        )
    return path


def _ods_cell(cell: Any) -> str:
    if isinstance(cell, str):
        return (
            f'<table:table-cell office:value-type="string"><text:p>{escape(cell)}</text:p></table:table-cell>'
        )
    return f'<table:table-cell office:value-type="float" office:value="{cell}"/>'

"""A page replaces no file that is none."""

import pytest

from viceversa.errors import BadInput
from viceversa.files import write_text
from viceversa.pages.html import check_out, render


def test_a_page_may_be_written_again_and_nothing_else_replaced(tmp_path):
    out = tmp_path / "deep" / "page.html"
    check_out(out)
    assert not out.parent.exists()  # a look leaves nothing
    write_text(out, render("page.html.j2"))
    check_out(out)
    out.write_text("<!doctype html>\n<title>mine</title>")
    with pytest.raises(BadInput, match=r"page\.html is there already, and no page of viceversa's"):
        check_out(out)


@pytest.mark.parametrize("name", ["day0.jpg", "notes.txt", "page"])
def test_a_page_is_html(tmp_path, name):
    with pytest.raises(BadInput, match=r"name a file that ends in \.html"):
        check_out(tmp_path / name)


def test_a_page_is_a_file_in_a_folder_that_may_be_written_to(tmp_path):
    with pytest.raises(BadInput, match="is a folder"):
        check_out(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be written to"):
        check_out(tmp_path / "file" / "page.html")

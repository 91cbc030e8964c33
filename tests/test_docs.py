"""The site builds without a warning, asks nothing from outside, fits a phone, and speaks of what is there."""

import dataclasses
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import opened

from viceversa import config

pytest.importorskip("sphinx", reason="sphinx is not installed: pip install 'viceversa[docs]'")
ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}
"""What a browser fetches by itself."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-d", str(out / "trees"), str(DOCS)]
    done = subprocess.run([*command, str(out / "html")], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return out / "html"


class Page(HTMLParser):
    """The links, the fetched parts and the anchors of a page."""

    def __init__(self, file):
        super().__init__()
        self.links, self.parts, self.anchors = [], [], set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if found.get("id"):
            self.anchors.add(found["id"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in LOADED and found.get(LOADED[tag]):
            self.parts.append(found[LOADED[tag]])


def test_links_lead_somewhere_and_nothing_is_fetched(site):
    pages = {file.resolve(): Page(file) for file in site.rglob("*.html")}
    assert len(pages) > 18
    for file, page in pages.items():
        for link in page.parts + page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                assert link in page.links, f"{file.name} fetches {link}"
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            assert target.exists(), f"{file.name}: {link}"
            if parts.fragment and target in pages and parts.fragment != "":
                assert parts.fragment in pages[target].anchors, f"{file.name}: {link}"


@pytest.mark.parametrize("page", ["index.html", "recipes/photo.html", "reference/command.html", "peers.html"])
def test_opens_from_disk_on_a_phone(site, page):
    """`opened` also holds that nothing is wider than the window and nothing is on the console."""
    with opened(site / page, width=390, height=844, own_folder=site) as shown:
        assert shown.locator("h1").inner_text()


def test_search_works_from_disk(site):
    with opened(site / "search.html", own_folder=site) as shown:
        shown.goto((site / "search.html").as_uri() + "?q=zebra")
        shown.wait_for_selector("ul.search li a")
        assert "horse2zebra" in " ".join(shown.locator("ul.search li a").evaluate_all("all => all.map(a => a.href)"))


def test_references_name_every_flag_and_every_public_name(site):
    text = (site / "reference" / "command.html").read_text(encoding="utf-8")
    for settings in (config.Train, config.Translate, config.Fetch):
        for field in dataclasses.fields(settings):
            positional = "Positional" in repr(field.type)
            assert positional or f"--{field.name.replace('_', '-')}" in text, field.name
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert all(f"viceversa.{name}" in python for name in ("load", "train", "evaluate", "Translator"))


def pages():
    return {path.stem: path.read_text(encoding="utf-8") for path in (DOCS / "recipes").glob("*.md")}


def test_every_recipe_has_a_page_with_its_settings_and_their_reasons():
    """Every setting in which a row differs from the paper's is spoken of on its page, or with its family."""
    found = pages()
    without = {"paper", "paint", "fast", "demo"}
    assert set(found) == set(config.RECIPES) - without | {"index"}
    for name in set(config.RECIPES) - without:
        page = found[name]
        assert f"{{{{ recipe {name} }}}}" in page and f"--recipe {name}" in page and f"]({name}.md)" in found["index"]
        titles = ["## The settings", "## How many images", "## What goes wrong", "## How to judge"]
        assert [line for line in page.splitlines() if line in titles] == titles
        reasons = (page + found["index"]).replace("`", "")
        silent = [key for key in config.RECIPES[name] if f"--{key.replace('_', '-')}" not in reasons]
        assert not silent, f"{name}: no reason for {silent}"


def test_flags_that_pages_name_are_there():
    """In commands and in text, on all pages but the peers' column of theirs."""
    known = {f"--{f.name.replace('_', '-')}" for kind in kinds() for f in dataclasses.fields(kind)}
    known |= {f"--no-{name[2:]}" for name in known} | {"--help", "--version"}
    others = re.compile(
        r"torchrun|srun|SBATCH|--signal|python |bash |pip |--n(nodes|proc)|--rdzv|--max-restarts|docker|curl |ray "
    )
    for path in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        if path.parent.name == "reference":
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            if path.name == "peers.md" and line.startswith("|"):
                line = line.split("|")[2]
            if not others.search(line):
                for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line):
                    assert flag in known, f"{path.name}: {flag} in {line!r}"


def kinds():
    from typing import get_args

    return [getattr(kind, "__origin__", kind) for kind in get_args(config.Command)]


THEIRS = """
    dataroot name checkpoints_dir gpu_ids model input_nc output_nc ngf ndf netG netD n_layers_D norm init_type init_gain
    no_dropout dataset_mode direction serial_batches num_threads batch_size load_size crop_size max_dataset_size
    preprocess no_flip display_winsize epoch load_iter verbose suffix use_wandb wandb_project_name
    display_freq display_ncols display_id display_server display_env display_port update_html_freq print_freq no_html
    save_latest_freq save_epoch_freq save_by_iter continue_train epoch_count phase n_epochs n_epochs_decay beta1 lr
    gan_mode pool_size lr_policy lr_decay_iters lambda_A lambda_B lambda_identity lambda_L1
    results_dir aspect_ratio eval num_test model_suffix
""".split()
"""The flags of pytorch-CycleGAN-and-pix2pix: options/, models/cycle_gan_model.py, pix2pix_model.py, test_model.py."""


def test_every_flag_of_the_peers_has_its_row():
    text = (DOCS / "peers.md").read_text(encoding="utf-8")
    left = "\n".join(line.split("|")[1] for line in text.splitlines() if line.startswith("|"))
    assert [flag for flag in THEIRS if not re.search(rf"`--{flag}\b", left)] == []

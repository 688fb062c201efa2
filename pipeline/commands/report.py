"""`doit report`: the page about a guest, written beside what is built."""

import time

from pipeline.caller import shorten_path
from pipeline.commands.options import Guests
from pipeline.console.progress import print_line
from pipeline.files import write_durably
from pipeline.recipe import Recipe
from pipeline.report.page import render_page
from pipeline.report.page_contents import read_contents
from pipeline.spec import Spec
from pipeline.walls.privacy import make_private_folder


def report(recipe: Recipe, spec: Spec, _options: Guests) -> None:
    """Write the page. It is the user's alone: it names addresses, keys and paths."""
    page = render_page(read_contents(recipe, spec), written_at=time.time())
    path = recipe.project.report(spec.name)
    make_private_folder(path.parent)
    write_durably(path, page.encode(), mode=0o600)
    print_line(f"{spec.name}: {shorten_path(path)}")

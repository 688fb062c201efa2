"""Channels moved by hand."""

from __future__ import annotations

from pipeline.artifact import published as versions
from pipeline.commands import night_options
from pipeline.commands.host import on_host
from pipeline.commands.install import serve_published
from pipeline.console.progress import print_line
from pipeline.recipe import Recipe


@on_host
def promote(recipe: Recipe, _specs: object, asked: night_options.Promote) -> None:
    """Move a channel of a guest's published versions, there or back."""
    project, name = recipe.project, asked.name
    if asked.rollback:
        versions.roll_back(project, name, asked.channel)
    else:
        versions.promote(
            project, name, channel=asked.channel, wanted=asked.version, unproven=asked.unproven
        )
    for channel, version in versions.channels(project, name).items():
        proof = "" if version.proof == "proven" else f", not proven: {version.proof}"
        print_line(f"{name}: {channel} is {version.name}{proof}")
    serve_published(project, asked.passphrase)

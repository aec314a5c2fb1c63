"""`almanac crds`: print the CustomResourceDefinitions, or the reference of their fields."""

from __future__ import annotations

from pathlib import Path

import click

from almanac import crd, reference


@click.command(
    epilog="\b\nExamples:\n  almanac crds | kubectl apply --server-side -f -\n  almanac crds --format markdown"
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["yaml", "markdown"]),
    default="yaml",
    show_default=True,
    help="The definitions, or the reference of their fields.",
)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Folder to write a file a kind to.")
def crds(style: str, output: Path | None) -> None:
    """Print the CustomResourceDefinitions of Almanac's kinds, or the reference of their fields."""
    files = definitions() if style == "yaml" else reference.pages()
    if output is None:
        click.echo(("---\n" if style == "yaml" else "\n").join(files.values()), nl=False)
        return
    output.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (output / name).write_text(text, encoding="utf-8")


def definitions() -> dict[str, str]:
    """Every definition by its file's name."""
    return {crd.file_name(kind): crd.to_yaml(crd.definition(kind)) for kind in crd.RESOURCES}

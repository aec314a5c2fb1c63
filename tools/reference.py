"""Pages of docs/reference/ that are made from the chart and the code: `python -m tools.reference` writes them."""

from __future__ import annotations

from tools.chart import CHART, ROOT

FOLDER = ROOT / "docs" / "reference"


def pages() -> dict[str, str]:
    """The pages by their file names."""
    return {"chart.md": _chart()}


def _chart() -> str:
    values = (CHART / "values.yaml").read_text(encoding="utf-8")
    return (
        "# Values of the Helm chart\n\n"
        "All values, with what they are if nobody sets them. [Install](../install.md) says which matter when.\n\n"
        f"```yaml\n{values}```\n"
    )


def main() -> None:
    """Write them."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

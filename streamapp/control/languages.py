"""Language files: a name or a path in, a checked language out."""

from __future__ import annotations

import tomllib
from pathlib import Path

from streamapp.config import shipped
from streamapp.core.document import nearest
from streamapp.core.errors import ConfigError
from streamapp.core.language import Language, parse_language


def load_language(name_or_path: str) -> Language:
    """Takes a language's name ("en") or the path of its file; gives it.

    A path is read as given; a name is looked up in ./languages, then in what came with the program. Raises ConfigError that lists every
    sentence that is missing or has a slot that nothing fills.
    """
    given, folders = Path(name_or_path), (Path("languages"), shipped("languages"))
    places = [given] if given.suffix == ".toml" else [folder / f"{name_or_path}.toml" for folder in folders]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        known = sorted({file.stem for folder in folders for file in folder.glob("*.toml")})
        raise ConfigError(f"there is no language {name_or_path}{nearest(name_or_path, known)}", "name one of them, or a .toml file")
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as failure:
        raise ConfigError(f"{path} cannot be read: {failure}", "name a readable language file") from failure
    return parse_language(document, str(path), text)

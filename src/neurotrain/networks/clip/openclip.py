"""Adapter to the networks of open_clip.

Shape legend: see :mod:`neurotrain.networks.clip.base`.
"""

from __future__ import annotations

import difflib
import json
import logging
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from torch import Tensor, nn

from neurotrain.documents import parse_json
from neurotrain.networks.clip.base import ClipNetwork
from neurotrain.networks.clip.tuning import TowerTuning, merged_state
from neurotrain.networks.text import Tokenizer
from neurotrain.storage.extras import require
from neurotrain.storage.tensors import check_checkpoint

_FOLDER = "local-dir:"
_CONFIG = "open_clip_config.json"
_WEIGHTS = (".safetensors", ".bin", ".pth")
_TOKENIZER_OPTIONS = frozenset({"additional_special_tokens", "clean", "language", "reduction_mask", "strip_sep_token"})


@final
class OpenClip(ClipNetwork):
    """A network of open_clip by its name, with random weights or those of a local file; nothing is downloaded.

    Its text tower is always the separate one (open_clip's ``CustomTextCLIP``), which computes the same. Where weights
    are loaded, scale and bias are the file's. (OpenAI's weights need a name with ``-quickgelu``.)

    Args:
        name: as ``open_clip.list_models()`` has it, or ``local-dir:FOLDER`` with an ``open_clip_config.json``, weights
            and, where the network needs one, a tokenizer of Hugging Face.
        weights: safetensors, or a pickle of tensors alone, which is read without running code; None: random ones, or
            the folder's.
        temperature: where the scale begins with random weights.
        bias: where the bias begins with random weights; None: there is none.
        length: most tokens of a text; None: as the network has it.
        image_tuning: what of the image tower learns; None: all of it.
        text_tuning: what of the text tower learns; None: all of it.

    Raises:
        ValueError: if the name is unknown, or the weights do not fit.
        FileNotFoundError: if there is no such file or folder.

    Reference:
        https://github.com/mlfoundations/open_clip
    """

    def __init__(
        self,
        *,
        name: str = "ViT-B-32",
        weights: Path | None = None,
        temperature: float = 0.07,
        bias: float | None = None,
        length: int | None = None,
        image_tuning: TowerTuning | None = None,
        text_tuning: TowerTuning | None = None,
    ) -> None:
        super().__init__(temperature=temperature, bias=bias)
        _check_name(name)
        _check_local(name)
        with _without_root_handler():
            model, loaded = _created(name, weights, bias, length)
            self._tokenize = _tokenizer(name, int(model.context_length))
        self.visual: nn.Module = model.visual
        self.text: nn.Module = model.text
        self.name, self._length = name, length
        self.features = int(self.text.output_dim)  # pyright: ignore[reportArgumentType]
        if loaded:
            self.log_scale = nn.Parameter(model.logit_scale.detach().reshape(()).clone())
            held = model.logit_bias
            self.bias = None if held is None else nn.Parameter(held.detach().reshape(()).clone())
        self.adapt(image=image_tuning, text=text_tuning)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None: open_clip's own is used, which learns nothing."""
        return None

    def towers(self) -> Mapping[str, nn.Module]:
        """open_clip's ``visual`` and ``text``."""
        return {"image": self.visual, "text": self.text}

    def tokenize(self, texts: list[str]) -> Tensor:
        """Tokens int64 ``(B, L)``, of the fixed length of the network."""
        return self._tokenize(texts).long()

    def exported(self) -> dict[str, Tensor]:
        """Weights as open_clip itself names them for this network, changes of low rank merged."""
        state = {name: value for name, value in merged_state(self.state_dict()).items() if isinstance(value, Tensor)}
        state["logit_scale"] = state.pop("log_scale")
        if "bias" in state:
            state["logit_bias"] = state.pop("bias")
        config = _config(self.name)
        if not config.get("custom_text") and "hf_model_name" not in config["text_cfg"]:
            # Its class without a separate text tower, which open_clip makes where nobody forces the other one.
            state = {name.removeprefix("text."): value for name, value in state.items()}
        return {name: value.detach().contiguous() for name, value in state.items()}

    def write(self, folder: Path) -> None:
        """Write weights, configuration and tokenizer as open_clip reads them (``local-dir:FOLDER``).

        Args:
            folder: that is there.
        """
        from safetensors.torch import save_file

        save_file(self.exported(), folder / "open_clip_model.safetensors")
        told: dict[str, Any] = {"model_cfg": _config(self.name), "preprocess_cfg": {}}
        if self.name.startswith(_FOLDER):
            own = Path(self.name.removeprefix(_FOLDER))
            told = parse_json((own / _CONFIG).read_text(encoding="utf-8"), where=own / _CONFIG)
            for path in own.iterdir():
                if path.is_file() and path.suffix not in _WEIGHTS:
                    shutil.copy2(path, folder)
        if self._length is not None:
            told["model_cfg"]["text_cfg"]["context_length"] = self._length
        (folder / _CONFIG).write_text(json.dumps(told, indent=2), encoding="utf-8")


@contextmanager
def _without_root_handler() -> Generator[None]:
    """open_clip logs by functions that give the root logger a handler: every line of a run would be shown twice."""
    root, nothing = logging.getLogger(), logging.NullHandler()
    root.addHandler(nothing)
    try:
        yield
    finally:
        root.removeHandler(nothing)


def _check_name(name: str) -> None:
    require("open_clip", extra="clip", purpose="OpenClip")
    import open_clip

    if name.startswith(_FOLDER):
        if not (Path(name.removeprefix(_FOLDER)) / _CONFIG).is_file():
            raise FileNotFoundError(f"name={name!r}: no folder with an open_clip_config.json")
        return
    known = open_clip.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        raise ValueError(f"name={name!r} is no network of open_clip; nearest: {', '.join(near) or 'none'}")


def _check_local(name: str) -> None:
    """Refuse what open_clip would fetch from the hub beside weights."""
    text = _config(name)["text_cfg"]
    _check_safe(name, text)
    if "hf_model_name" in text and not Path(text["hf_model_name"]).is_dir():
        raise ValueError(
            f"name={name!r}: its text tower is {text['hf_model_name']!r} on the hub; nothing is downloaded"
        )
    if not name.startswith(_FOLDER) and ("hf_tokenizer_name" in text or "siglip" in name.lower()):
        raise ValueError(
            f"name={name!r}: its tokenizer is on the hub, and nothing is downloaded: give name='{_FOLDER}FOLDER' with "
            f"{_CONFIG}, weights and the tokenizer's files"
        )


def _check_safe(name: str, text: Mapping[str, Any]) -> None:
    """Refuse what a folder's own files would make open_clip run or fetch."""
    if not name.startswith(_FOLDER):
        return
    folder = Path(name.removeprefix(_FOLDER))
    options = sorted(set(text.get("tokenizer_kwargs") or {}) - _TOKENIZER_OPTIONS)
    if options:
        known = ", ".join(sorted(_TOKENIZER_OPTIONS))
        raise ValueError(
            f"{folder / _CONFIG}: tokenizer_kwargs.{options[0]} is refused; these may stand there: {known}"
        )
    for file in ("config.json", "tokenizer_config.json"):
        path = folder / file
        if path.is_file() and "auto_map" in parse_json(path.read_text(encoding="utf-8"), where=path):
            raise ValueError(f"{path}: auto_map names code of the folder, which is never run")
    image = _config(name).get("vision_cfg") or {}
    timm = image.get("timm_model_name") if isinstance(image, Mapping) else None
    if timm is not None and (":" in timm or image.get("timm_model_pretrained")):
        raise ValueError(
            f"{folder / _CONFIG}: timm_model_name={timm!r} would be fetched: only a name, without weights, may stand"
        )


def _config(name: str) -> dict[str, Any]:
    """open_clip's settings of the network's architecture."""
    import open_clip

    return dict(open_clip.get_model_config(name) or {})


def _created(name: str, weights: Path | None, bias: float | None, length: int | None) -> tuple[Any, bool]:
    """open_clip's network, and whether it has weights of a file."""
    import open_clip
    from open_clip.factory import load_checkpoint
    from open_clip.model import CustomTextCLIP

    if weights is not None and not Path(weights).is_file():
        raise FileNotFoundError(f"weights={str(weights)!r}: no such file; null for random weights")
    named = not name.startswith(_FOLDER)
    own = not named and weights is None
    if own and not any(path.suffix in _WEIGHTS for path in Path(name.removeprefix(_FOLDER)).iterdir()):
        raise FileNotFoundError(f"name={name!r}: the folder holds no weights ({', '.join(_WEIGHTS)})")
    read = [weights] if weights is not None else Path(name.removeprefix(_FOLDER)).iterdir() if own else []
    for path in map(Path, read):
        if path.suffix in _WEIGHTS and path.suffix != ".safetensors":
            check_checkpoint(path)
    try:
        model: Any = open_clip.create_model(
            name,
            pretrained=str(Path(weights).resolve()) if weights is not None and named else None,
            load_weights=own or named,
            force_custom_text=True,
            force_context_length=length,
            pretrained_text=False,
            init_logit_bias=bias,
        )
        if weights is not None and not named:
            load_checkpoint(model, str(weights), strict=True, weights_only=True)
    except (RuntimeError, TypeError, KeyError) as error:
        raise ValueError(f"name={name!r}, weights={weights and str(weights)!r}: {error}") from error
    if type(model) is not CustomTextCLIP:
        raise ValueError(f"name={name!r} is a {type(model).__name__} of open_clip: only contrastive networks are used")
    return model, own or weights is not None


def _tokenizer(name: str, length: int) -> Any:  # noqa: ANN401 - several unrelated classes of open_clip
    import open_clip

    return open_clip.get_tokenizer(name, context_length=length)

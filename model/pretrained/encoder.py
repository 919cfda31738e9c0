"""The frozen encoder: what it makes of a picture and of a question. CLIP and SigLIP.

Two transformers of the usual kind. SigLIP's differs from CLIP's in five places: its patches
have a bias and no class token stands before them, its layers need no norm before but have one
after, and its texts are read in both directions.

Written here and not taken from the library `transformers`: where that is installed, every
training of any profile loads it (torchmetrics, below Lightning, does), which costs 1.8
processor seconds a process; and what a release runs should not depend on a hub client. The
tests hold it to values that transformers gave. Shape legend: __init__.py.

Sources: Radford et al. 2021, arXiv:2103.00020; Zhai et al. 2023, arXiv:2303.15343.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from model.pretrained.encoder_config import EncoderConfig, Tower, read_config
from model.pretrained.encoder_files import verify
from model.program.errors import BadInput

UNUSED = (  # what compares pictures with texts; we read patches and tokens instead
    "logit_scale", "logit_bias", "visual_projection.", "text_projection.",
    "vision_model.head.", "text_model.head.", "vision_model.embeddings.position_ids",
    "text_model.embeddings.position_ids",
)  # fmt: skip


class Encoder:
    """Both transformers, ready to be asked.

    No `nn.Module` on purpose: what holds one does not train it, does not save it in its
    checkpoints and does not share it out over processes. It follows its input to the device.
    """

    def __init__(
        self,
        folder: Path,
        version: str,
        config: EncoderConfig,
        image: "ImageTower",
        text: "TextTower",
    ) -> None:
        self.folder, self.version, self.config = folder, version, config
        self._image, self._text = image.eval(), text.eval()
        for part in (image, text):
            part.requires_grad_(False)

    @torch.no_grad()
    def encode_image(self, image_B3PP: Tensor) -> Tensor:
        """Features of each patch of normalised pictures, (B, N, N, V)."""
        n = self.config.patches
        return self._image.to(image_B3PP.device)(image_B3PP).unflatten(1, (n, n))

    @torch.no_grad()
    def encode_text(self, token_ML: Tensor) -> Tensor:
        """Features of each token of texts, (M, L, U)."""
        return self._text.to(token_ML.device)(token_ML)


def load(folder: Path, version: str) -> Encoder:
    """Read the encoder `version` from its folder: from this disk and from safetensors alone.

    Raises BadInput for other files than those of `version`, another kind of model, and
    weights that do not fit its config.json.
    """
    verify(folder, version)
    config = read_config(folder)
    with torch.device("meta"):  # shapes only; the weights come from the file
        image, text = ImageTower(config), TextTower(config)
    try:
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            ours = _by_tower(file.keys(), config)
            for tower, names in zip((image, text), ours, strict=True):
                weights = {name: file.get_tensor(key).float() for key, name in names.items()}
                tower.load_state_dict(weights, assign=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise BadInput(
            f"{folder / 'model.safetensors'} does not hold the encoder of its config.json "
            f"({' '.join(str(error).split())[:300]})",
            expected=f"the weights of a whole {config.kind} model",
        ) from error
    return Encoder(folder, version, config, image, text)


def _by_tower(
    keys: Iterable[str], config: EncoderConfig
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """For both towers: names in the file and ours. Raises BadInput for what is not known."""
    found: dict[str, dict[str, str]] = {"vision_model": {}, "text_model": {}}
    for key in keys:
        if key.startswith(UNUSED):
            continue
        tower, _, rest = key.partition(".")
        if config.kind == "clip" and key.startswith("vision_model.post_layernorm."):
            continue  # is for the class token only
        if tower not in found:
            raise BadInput(
                f"the encoder's weights hold {key!r}", expected=f"those of {config.kind} only"
            )
        found[tower][key] = rest.removeprefix("embeddings.").removeprefix("encoder.")
    return found["vision_model"], found["text_model"]


class ImageTower(nn.Module):
    """From normalised pixels to patches (B, N², V). Attributes are named as in the file."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        tower, clip = config.image, config.kind == "clip"
        self.class_embedding = nn.Parameter(torch.empty(tower.width)) if clip else None
        self.patch_embedding = nn.Conv2d(
            3, tower.width, config.patch, stride=config.patch, bias=not clip
        )
        self.position_embedding = nn.Embedding(config.patches**2 + clip, tower.width)
        norm = nn.LayerNorm(tower.width, eps=tower.eps)
        self.pre_layrnorm = norm if clip else None  # spelt so in the file
        self.layers = nn.ModuleList(Layer(tower) for _ in range(tower.layers))
        self.post_layernorm = None if clip else norm

    def forward(self, image_B3PP: Tensor) -> Tensor:
        x_BNV = self.patch_embedding(image_B3PP).flatten(2).transpose(1, 2)
        if self.class_embedding is not None:
            first_B1V = self.class_embedding.to(x_BNV).expand(len(x_BNV), 1, -1)
            x_BNV = torch.cat([first_B1V, x_BNV], dim=1)
        x_BNV = x_BNV + self.position_embedding.weight
        if self.pre_layrnorm is not None:
            x_BNV = self.pre_layrnorm(x_BNV)
        for layer in self.layers:
            x_BNV = layer(x_BNV, causal=False)
        if self.post_layernorm is not None:
            x_BNV = self.post_layernorm(x_BNV)
        return x_BNV if self.class_embedding is None else x_BNV[:, 1:]


class TextTower(nn.Module):
    """From token numbers to tokens' features (M, L, U)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        tower = config.text
        self._causal = config.kind == "clip"
        self.token_embedding = nn.Embedding(config.vocabulary, tower.width)
        self.position_embedding = nn.Embedding(config.tokens_max, tower.width)
        self.layers = nn.ModuleList(Layer(tower) for _ in range(tower.layers))
        self.final_layer_norm = nn.LayerNorm(tower.width, eps=tower.eps)

    def forward(self, token_ML: Tensor) -> Tensor:
        place_LU = self.position_embedding.weight[: token_ML.shape[1]]
        x_MLU = self.token_embedding(token_ML) + place_LU
        for layer in self.layers:
            x_MLU = layer(x_MLU, causal=self._causal)
        return self.final_layer_norm(x_MLU)


class Layer(nn.Module):
    """Tokens look at each other, then each thinks; norms come first."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(tower.width, eps=tower.eps)
        self.self_attn = Attention(tower)
        self.layer_norm2 = nn.LayerNorm(tower.width, eps=tower.eps)
        self.mlp = Mlp(tower)

    def forward(self, x_BLU: Tensor, *, causal: bool) -> Tensor:
        x_BLU = x_BLU + self.self_attn(self.layer_norm1(x_BLU), causal=causal)
        return x_BLU + self.mlp(self.layer_norm2(x_BLU))


class Attention(nn.Module):
    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self._heads = tower.heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(tower.width, tower.width) for _ in range(4)
        )

    def forward(self, x_BLU: Tensor, *, causal: bool) -> Tensor:
        parts = (self.q_proj(x_BLU), self.k_proj(x_BLU), self.v_proj(x_BLU))
        ask, key, value = (p.unflatten(-1, (self._heads, -1)).transpose(1, 2) for p in parts)
        seen = functional.scaled_dot_product_attention(ask, key, value, is_causal=causal)
        return self.out_proj(seen.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self._activation = tower.activation
        self.fc1 = nn.Linear(tower.width, tower.inner)
        self.fc2 = nn.Linear(tower.inner, tower.width)

    def forward(self, x_BLU: Tensor) -> Tensor:
        x_BLI = self.fc1(x_BLU)
        if self._activation == "quick_gelu":
            return self.fc2(x_BLI * torch.sigmoid(1.702 * x_BLI))
        tanh = self._activation == "gelu_pytorch_tanh"
        return self.fc2(functional.gelu(x_BLI, approximate="tanh" if tanh else "none"))

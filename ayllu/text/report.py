"""How well tokenizers spell languages: bytes per token, and what falls back to single bytes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ayllu.text.codec import METASPACE
from ayllu.text.tokenizer import Tokenizer

# Our own sentences, one meaning in many languages, for a report without texts. Short: real texts say more.
SAMPLES: dict[str, list[str]] = {
    "en": ["In the morning the old fisherman walked down to the harbour, mended his nets and waited for the wind. "
           "His granddaughter asked why he never hurried. \"The sea,\" he said, \"is not late.\""],
    "zh": ["早晨，老渔夫走到港口，补好渔网，等着起风。孙女问他为什么从不着急。他说：“大海从来不会迟到。”"],
    "de": ["Am Morgen ging der alte Fischer zum Hafen hinunter, flickte seine Netze und wartete auf den Wind. Seine "
           "Enkelin fragte, warum er sich nie beeile. „Das Meer“, sagte er, „kommt nicht zu spät.“"],
    "fr": ["Le matin, le vieux pêcheur descendit au port, répara ses filets et attendit le vent. Sa petite-fille lui "
           "demanda pourquoi il ne se pressait jamais. « La mer, dit-il, n'est pas en retard. »"],
    "es": ["Por la mañana el viejo pescador bajó al puerto, remendó sus redes y esperó el viento. Su nieta le preguntó "
           "por qué nunca tenía prisa. «El mar», dijo, «no llega tarde»."],
    "ru": ["Утром старый рыбак спустился в гавань, починил сети и стал ждать ветра. Внучка спросила, почему он никогда "
           "не спешит. «Море, — сказал он, — не опаздывает»."],
    "ja": ["朝、年老いた漁師は港へ下り、網を繕い、風を待った。孫娘が、"
           "なぜ急がないのかと尋ねた。「海は遅れないから」と彼は言った。"],
    "ko": ["아침에 늙은 어부는 항구로 내려가 그물을 고치고 바람을 기다렸다. "
           "손녀가 왜 서두르지 않느냐고 물었다. “바다는 늦지 않으니까.”"],
    "ar": ["في الصباح نزل الصياد العجوز إلى الميناء وأصلح شباكه وانتظر الريح. "
           "سألته حفيدته لماذا لا يستعجل أبدا. قال: البحر لا يتأخر."],
    "hi": ["सुबह बूढ़ा मछुआरा बंदरगाह पर गया, अपने जाल सुधारे और हवा का इंतज़ार किया। पोती ने पूछा कि वह कभी जल्दी क्यों नहीं करता।"],
    "python": ["def mend(nets: list[Net], wind: float = 0.5) -> int:\n    \"\"\"Mend what is torn.\"\"\"\n"
               "    torn = [n for n in nets if n.holes > 0]\n    for net in torn:\n        net.holes -= 1\n"
               "    return len(torn)\n"],
}


@dataclass(frozen=True)
class Spelling:
    """What one tokenizer makes of the texts of one language."""

    texts: int
    bytes: int
    tokens: int
    part_tokens: int                                     # tokens that are no whole character

    @property
    def bytes_per_token(self) -> float:
        """More is better: fewer tokens for the same text."""
        return self.bytes / self.tokens if self.tokens else 0.0

    @property
    def part_share(self) -> float:
        """The share of tokens that spell a character in parts: the vocabulary lacks this script."""
        return self.part_tokens / self.tokens if self.tokens else 0.0


def spell(tokenizer: Tokenizer, texts: Sequence[str]) -> Spelling:
    """Count over texts, without BOS and EOS."""
    rows = tokenizer.encode_batch(texts)
    parts: dict[int, bool] = {}
    for row in rows:
        for id in row:
            if id not in parts:
                parts[id] = _is_part(tokenizer.bytes_of(id))
    return Spelling(texts=len(texts), bytes=sum(len(t.encode()) for t in texts), tokens=sum(map(len, rows)),
                    part_tokens=sum(parts[id] for row in rows for id in row))


def compare(tokenizers: Mapping[str, Tokenizer], texts: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Spelling]]:
    """For each language, for each tokenizer."""
    return {language: {name: spell(t, rows) for name, t in tokenizers.items()} for language, rows in texts.items()}


def first_difference(a: Tokenizer, b: Tokenizer, texts: Iterable[str]) -> str | None:
    """The first text that two tokenizers spell in different ids, or None."""
    return next((t for t in texts if a.encode(t) != b.encode(t)), None)


def hard_texts(texts: Iterable[str]) -> list[str]:
    """Texts that find differences between two implementations: theirs, and spaces, digits and odd characters."""
    odd = ["", " ", "\t\n\r\n", "\u00a0\u3000", "a  b   c", "1234567890", "ÀÉ\u0301\u200d", "\x00\x7f", METASPACE,
           "👩\u200d👩\u200d👧🏽🦙", f"a{METASPACE * 3}b", "<s></s><unk><0x41>", "𐍈𝄞\U0010fffd",
           *(" " * n + "x" for n in range(1, 40))]
    return [*odd, *(part for text in texts for part in (text, text.replace(" ", "  "), text.swapcase()))]


def _is_part(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return True
    return False

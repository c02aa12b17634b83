"""HashedNgramEmbedder: vectors of words and their pieces, without a model, a network or a download.

Hides tokens and hashing. Promises the same vector for the same text in every process, on every machine and with every release
of a library: the hash is blake2b, and no library has a say in it, so that rows of one name stay comparable for ever.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from core.text.embedder import DOCUMENT_WIDTH, check_text

_WORD = re.compile(r"\w+")
_WORD_SIZES = (1, 2)
_CHARACTER_SIZES = (3, 4, 5)
_WORD_SHARE = 0.6


class HashedNgramEmbedder:
    """Embed text by what it is spelled of: words, pairs of words, and their pieces of three to five characters.

    Texts are near when they share words or stems of words; synonyms are strangers to it.

    Notes
    -----
    The text is brought to Unicode NFKC and folded in case. A gram that occurs n times weighs 1 + ln n [2]_, and falls with a
    sign into one of 1,536 slots, both taken from its hash, so that collisions cancel on average [1]_. Pieces are cut within a
    word that is marked at both ends by a blank [3]_. Words and pieces are brought to unit length apart and added with the
    squared shares 0.6 and 0.4. Deviations: no inverse document frequency, which would change old vectors with every new
    document; both kinds of grams share one space.

    References
    ----------
    .. [1] Weinberger, K., Dasgupta, A., Langford, J., Smola, A., Attenberg, J. (2009). Feature hashing for large scale
       multitask learning. Proceedings of ICML, 1113-1120.
    .. [2] Salton, G., Buckley, C. (1988). Term-weighting approaches in automatic text retrieval. Information Processing &
       Management, 24(5), 513-523.
    .. [3] Bojanowski, P., Grave, E., Joulin, A., Mikolov, T. (2017). Enriching word vectors with subword information.
       Transactions of the ACL, 5, 135-146.
    """

    name = "hashed-ngrams-1"
    dims = DOCUMENT_WIDTH

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one vector of unit length a text, in order.

        Raises
        ------
        DataError
            If a text is empty or too long.
        """
        vectors = np.zeros((len(texts), self.dims), dtype=np.float32)
        for row, text in enumerate(texts):
            words = _words(check_text("text", text))
            vector = math.sqrt(_WORD_SHARE) * _unit(_hashed(_word_grams(words)))
            vector += math.sqrt(1.0 - _WORD_SHARE) * _unit(_hashed(_character_grams(words)))
            vectors[row] = _unit(vector)
        return vectors


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(folded) or folded.split() or [folded]


def _word_grams(words: list[str]) -> Iterator[str]:
    for size in _WORD_SIZES:
        for start in range(len(words) - size + 1):
            yield "w:" + " ".join(words[start : start + size])


def _character_grams(words: list[str]) -> Iterator[str]:
    for word in words:
        marked = f" {word} "
        for size in _CHARACTER_SIZES:
            for start in range(len(marked) - size + 1):
                yield "c:" + marked[start : start + size]


def _hashed(grams: Iterable[str]) -> npt.NDArray[np.float64]:
    vector = np.zeros(DOCUMENT_WIDTH)
    for gram, n in Counter(grams).items():
        number = int.from_bytes(blake2b(gram.encode(), digest_size=8).digest(), "little")
        vector[(number >> 1) % DOCUMENT_WIDTH] += (1.0 if number & 1 else -1.0) * (1.0 + math.log(n))
    return vector


def _unit(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0.0 else vector

"""Text as vectors: what makes documents comparable by meaning.

A room of its own at the bottom of the house: `features` takes bars only, and the store, which chooses the embedder once for
every writer and reader, may import nothing above itself.
"""

from core.text.embedder import DOCUMENT_WIDTH, TextEmbedder
from core.text.hashed import HashedNgramEmbedder
from core.text.openai_embedder import OpenAIEmbedder

__all__ = ["DOCUMENT_WIDTH", "HashedNgramEmbedder", "OpenAIEmbedder", "TextEmbedder"]

"""Igor: a masterless, peer-to-peer job scheduler. Every node runs this program.

Read words.py (the words and the errors), then docs/architecture.md (one fire's journey through the folders).
"""

__version__ = "0.1.0"

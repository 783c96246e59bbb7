"""The format as an outsider sees it: a reader and a writer made from docs/format.md alone, and what they find."""

"""Data files opened, decompressed and read as documents, rows or chats, each with path, line and byte offset."""

"""Hostile files: whatever bytes a checkpoint holds, a reader answers with one of Holdfast's errors, soon and in little memory."""

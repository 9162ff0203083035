"""Commands that are no stage: init, status, schema, chat."""

"""The command lines of the verbs on versions: tag, alias, rollback, promote, log, push, pull."""

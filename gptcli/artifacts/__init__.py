"""Everything gptcli keeps on disk: projects, manifests, builds, shards, locks. No torch at module level."""

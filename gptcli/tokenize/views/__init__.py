"""What people ask of finished tokens: pieces, figures, places, proofs."""

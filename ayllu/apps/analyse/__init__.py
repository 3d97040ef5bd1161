"""Understanding posts: what they say, how they feel, what changed; one report."""

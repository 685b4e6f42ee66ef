"""Students with less state than their teacher."""

"""A Flower app that trains softmax regression; the lines marked `# private` are all that Veilsum adds."""

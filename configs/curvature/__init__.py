"""Studies of curvature, surfaces and depth after several papers, one a file."""

"""`./dev bench [names]`: naru beside the engines installed here, in one run, as ratios. docs/benchmarks.md"""

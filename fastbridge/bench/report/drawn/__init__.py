"""Charts.

- figures: which charts there are, from a report's records
- charts: one function for each kind of chart (Vega-Lite, by Altair); style: what they have in common
- palette: a colour and a shape for every engine
- pictures: the charts as SVG and PNG
"""

"""Charts.

- charts: one function for each kind of chart (Vega-Lite, by Altair), which takes what a figure shows
- style: what all charts have in common
- palette: a colour and a shape for every engine
- pictures: the charts as SVG and PNG
"""

"""Many mirrors in one lake of Parquet files: export, merge, and a mirror of the merged lake.

`columns.py` names every column, `export.py` writes a mirror into its own folders of the lake, `merge.py` runs
`merge.sql` over the folders of all mirrors, `build.py` makes one mirror from the result. Import these files
only where they are used: pyarrow takes longer to load than most commands take.
"""

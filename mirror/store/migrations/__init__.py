"""The tables, as numbered migrations: what SQL users may rely on, and how an older file is migrated.

Names of tables and columns are a contract. A released migration is never changed. A change is a new function
in the file of its subject, listed here last and counted in `schema.py`, so that a file of a newer program is
recognised.
"""

from sqlite_utils.migrations import Migrations

from mirror.store.migrations import changes, mirrored, operation, search, search_refs
from mirror.store.schema import MIGRATIONS

migrations = Migrations(MIGRATIONS)
for step in (
    mirrored.m001_mirrored_things,
    operation.m002_the_crawl,
    mirrored.m003_views_for_people,
    search.m004_search_index,
    operation.m005_api_tokens,
    operation.m006_writes,
    mirrored.m007_orders_of_listings,
    operation.m008_webhook_deliveries,
    search.m009_search_lists_of_fixed_width,
    search.m010_order_of_popularity,
    search.m011_pending_in_full,
    changes.m012_what_is_hidden_of_the_public,
    search.m013_names_that_sql_cannot_judge,
    mirrored.m014_whatever_is_not_git,
    operation.m015_what_the_first_versions_made_otherwise,
    mirrored.m016_which_refs_were_read,
    operation.m017_deliveries_by_number,
    operation.m018_failures_that_are_accepted,
    mirrored.m019_authors_without_account,
    changes.m020_parents_are_told_by_their_row_alone,
    operation.m021_requests_that_were_sent,
    mirrored.m022_followers_by_user,
    mirrored.m023_archived,
    mirrored.m024_projects,
    mirrored.m025_what_no_column_holds,
    operation.m026_what_kind_of_file,
    search_refs.m027_refs_index,
    search.m028_words_of_descriptions,
    changes.m029_looks_around_changes,
    changes.m030_what_moved_that_should_not,
    changes.m031_sizes_of_the_past,
    search_refs.m032_spans_of_refs,
    search.m033_columns_of_the_search_index,
    search_refs.m034_names_below_every_path,
    changes.m035_changes_of_owners,
    changes.m036_moves_of_main_branches,
    search_refs.m037_blocks_of_refs,
    changes.m038_more_rare_changes,
    search.m039_pending_rows_without_derived_columns,
    mirrored.m040_slugs,
    search.m041_segments,
    changes.m042_what_sql_hides,
):
    migrations()(step)

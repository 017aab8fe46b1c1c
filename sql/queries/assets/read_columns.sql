-- A table's or view's columns as the catalog describes them.
SELECT
    attname AS name,
    format_type(atttypid, atttypmod) AS type,
    attnotnull AS is_required,
    col_description(attrelid, attnum) AS description
FROM pg_attribute
WHERE attrelid = %(relation)s::regclass AND attnum > 0 AND NOT attisdropped
ORDER BY attnum;

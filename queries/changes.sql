-- name: AddChange :exec
INSERT INTO changes (property_id, who, action, title, fields)
VALUES (@property_id, @who, @action, @title, @fields);

-- name: ListChanges :many
-- Latest first; of one property, or of all where the id is 0.
SELECT id, property_id, at, who, action, title, fields
FROM changes
WHERE @property_id::bigint = 0 OR property_id = @property_id
ORDER BY id DESC
LIMIT @take::bigint OFFSET @skip::bigint;

-- name: CountChanges :one
SELECT count(*)
FROM changes
WHERE @property_id::bigint = 0 OR property_id = @property_id;

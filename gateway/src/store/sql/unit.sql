-- What a lane holds next behind a delivery: every copy of that message in the lane, or one notice.
WITH next AS (
    SELECT seq, message FROM delivery WHERE queue = $1 AND seq > $2 AND quarantined IS NULL ORDER BY seq LIMIT 1
), unit AS (
    SELECT seq FROM next
    UNION ALL
    SELECT d.seq FROM next JOIN delivery AS d
        -- By message: as it stands, the queue would have SQLite go through all of the lane.
        ON d.message = next.message AND d.queue || '' = $1 AND d.seq > next.seq AND d.quarantined IS NULL
)
SELECT d.seq, d.agency, d.expires, d.offered, d.handed_over, d.log, d.waiting, d.waitings, d.message, d.proof, d.bases_salt, d.bases,
       d.decision, d.release, d.notice, m.sender, m.id, m.digest
FROM unit JOIN delivery AS d ON d.seq = unit.seq
LEFT JOIN message AS m ON m.seq = d.message
ORDER BY d.seq

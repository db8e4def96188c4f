-- What a lane holds next behind a delivery: every copy of that message in the lane, or one notice.
WITH next AS (
    SELECT seq, message FROM delivery WHERE queue = ?1 AND seq > ?2 AND quarantined IS NULL ORDER BY seq LIMIT 1
)
SELECT d.seq, d.agency, d.expires, d.offered, d.message, d.proof, d.bases_salt, d.bases, d.decision, d.release,
       d.policy_hash, d.notice, m.sender, m.id, m.digest
FROM next JOIN delivery AS d
    ON d.queue = ?1 AND d.quarantined IS NULL AND d.seq >= next.seq
    AND (d.seq = next.seq OR d.message = next.message)
LEFT JOIN message AS m ON m.seq = d.message
ORDER BY d.seq

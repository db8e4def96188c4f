-- One page of a queue: at most so many deliveries, and none behind the first that fills the page.
SELECT d.seq, d.agency, d.expires, d.offered, d.handed_over, d.log, d.waiting, d.waitings, d.proof, d.bases_salt, d.bases, d.decision, d.release, d.notice,
       m.sender, m.id, m.digest, c.envelope
FROM (
    SELECT *, SUM(bytes) OVER (ORDER BY seq) - bytes AS before
    FROM (SELECT * FROM delivery WHERE queue = $1 AND seq > $2 AND quarantined IS NULL ORDER BY seq LIMIT $3) AS page
) AS d
LEFT JOIN message AS m ON m.seq = d.message
LEFT JOIN content AS c ON c.message = d.message
WHERE d.before < $4
ORDER BY d.seq

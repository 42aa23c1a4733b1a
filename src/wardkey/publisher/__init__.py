"""The publisher: brings what the scribe has sealed to Kafka, a topic of one partition per tenant.

A message is an entry's canonical bytes, those that are hashed, or a signed checkpoint behind the last entry
it covers (``messages``, ``event.schema.json``). A tenant's position moves when the broker has acknowledged,
so that each entry comes at least once, in the order of the log: after a crash some come again, with the
position and id they had. A reader that takes only the next position, and no other, has the log.

Nothing is kept for it: what is sealed stays in the log. Sealed values are published as they are stored.
"""

"""What ingle remembers: intent (VMs, images, kernels, operations) and the journal of steps in flight.

Durable memory with one writer. A method is one transaction, committed when it returns.

References are resolved here and nowhere else, to what exists for their caller: what is a stranger's is NotFound in the
same words as what never was. What changes something takes a whole id or a name, so that a call that is sent twice never
meets another; only who looks may `find` by a unique prefix of an id as well. Raises NotFound with the kind's reason, or
AMBIGUOUS_REFERENCE. Ids that no caller has said, a str, are those of the server's own work.
"""

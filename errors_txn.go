package tikv

// mapTxnError turns an error of the transaction engine into a public one; false: it is
// none of those.
func mapTxnError(ec errorContext, err error) (error, bool) { return nil, false }

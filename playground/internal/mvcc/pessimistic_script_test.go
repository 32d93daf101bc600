package mvcc

func (s *script) pessimisticLock(a *args) string { return "" }

func (s *script) pessimisticRollback(a *args) string { return "" }

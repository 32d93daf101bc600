package tikv

type (
	// SnapshotOption is an option of Client.Snapshot.
	SnapshotOption interface{ applySnapshot(*readConfig) }
	// SnapshotAtOption is an option of Client.SnapshotAt.
	SnapshotAtOption interface{ applySnapshotAt(*readConfig) }
	// BeginOption is an option of Client.Begin.
	BeginOption interface{ applyBegin(*txnConfig) }
	// RunOption is an option of Client.RunTxn.
	RunOption interface{ applyRun(*txnConfig) }

	// ReadOption is an option of every kind of snapshot.
	ReadOption interface {
		SnapshotOption
		SnapshotAtOption
		applyLatest(*readConfig)
	}
	// TxnOption is an option of Begin and RunTxn.
	TxnOption interface {
		BeginOption
		RunOption
	}
)

// readConfig is a snapshot's.
type readConfig struct {
	problems
	view viewConfig
}

// txnConfig is a transaction's.
type txnConfig struct {
	problems
	view viewConfig
}

func (o viewOption) applySnapshot(c *readConfig)   { c.add(o.name, o.set(&c.view)) }
func (o viewOption) applySnapshotAt(c *readConfig) { c.add(o.name, o.set(&c.view)) }
func (o viewOption) applyLatest(c *readConfig)     { c.add(o.name, o.set(&c.view)) }
func (o viewOption) applyBegin(c *txnConfig)       { c.add(o.name, o.set(&c.view)) }
func (o viewOption) applyRun(c *txnConfig)         { c.add(o.name, o.set(&c.view)) }

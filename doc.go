// Package tikv is a client for TiKV clusters: raw keys, snapshots, transactions, and any
// other request of TiKV's service. This page is a tour; what a name does in detail stands
// at the name.
//
// # Opening a client
//
// [Open] asks PD who the cluster is; stores are connected to when they are needed. One
// [Client] serves the whole program, from any number of goroutines, until [Client.Close]
// has ended what it started.
//
//	client, err := tikv.Open(ctx, []string{"pd1:2379", "pd2:2379", "pd3:2379"})
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//
// [WithAPIVersion] and [WithKeyspace] say how the cluster stores keys, [WithTLSFiles] how
// it is spoken to. [OpenURL] takes all that as one string. Package playground starts a
// whole cluster in the process where you have none.
//
// # What holds for every call
//
// The deadline of ctx is one budget for all that a call waits for: timestamps, lookups,
// locks, delays and answers. Where ctx has none the budget is 20 s ([WithRetryFor]), but
// [Txn.Lock] and its kin wait for other transactions, and [Client.RunTxn] tries again, until
// ctx ends. When it ends the call returns at once, with ctx's error and cause inside of its
// own.
//
// Byte slices given to a call may be reused when it returns; those it returns are the
// caller's for good. An empty value is a value: absent is [ErrNotFound], or nil in the
// answer to a batch. A bad argument is an [*ArgumentError] before anything is sent.
//
// What certainly did not run is sent again, to wherever the data are by now, until the
// budget ends ([ErrUnavailable]). What may have run is sent again only where that is
// harmless, and else is [ErrUndetermined].
//
// # Raw keys
//
// [Client.Raw] is a view of single keys, without transactions. [Client.AtomicRaw] compares
// and swaps as well.
//
//	raw := client.Raw()
//	if err := raw.Put(ctx, []byte("session/1"), []byte("ann")); err != nil {
//		return err
//	}
//	for kv, err := range raw.Scan(ctx, tikv.Prefix([]byte("session/"))) {
//		if err != nil {
//			return err
//		}
//		fmt.Printf("%s: %s\n", kv.Key, kv.Value)
//	}
//
// A scan lives as long as its loop and reads page by page; its error comes last. On API V1
// raw and transactional keys share one space: a cluster holds the ones or the others.
//
// # Snapshots
//
// A [Snapshot] shows the cluster as of one moment: of now ([Client.Snapshot]), or of a
// timestamp ([Client.SnapshotAt]). [Client.Latest] saves the timestamp and shows each key
// as it is when it is read. There is nothing to close.
//
//	snap, err := client.Snapshot(ctx)
//	if err != nil {
//		return err
//	}
//	values, err := snap.BatchGet(ctx, [][]byte{[]byte("a"), []byte("b")}) // in this order
//	if err != nil {
//		return err
//	}
//
// # Transactions
//
// [Client.RunTxn] runs a function in a transaction, commits what it wrote, all or nothing,
// and runs it again if another transaction was quicker. Reads see the cluster as of the
// transaction's start, and its own writes.
//
//	err := client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
//		from, err := tx.Get(ctx, []byte("account/1"))
//		if err != nil {
//			return err
//		}
//		if err := tx.Delete([]byte("account/1")); err != nil {
//			return err
//		}
//		return tx.Insert([]byte("account/2"), from)
//	})
//
// Writes stay in memory until the commit: [Txn.Writes] shows them, [Txn.Savepoint] and
// [Txn.RollbackTo] take some back, [WithTxnLimits] bounds them. A transaction that writes more
// than fits is one [WithPipelined], which goes to the cluster while it is written.
// [Client.Begin] is for who wants to commit by himself; [Txn.Rollback] may be deferred.
//
// How a transaction commits is chosen by its size: with one request, asynchronously, or in
// two phases ([WithCommitMode]).
//
// # Locks
//
// A transaction is optimistic: it meets others when it commits. One with [WithPessimistic]
// locks keys when it is asked to, so that others wait instead of running in vain.
// [Txn.GetForUpdate] locks a key and returns the newest value.
//
//	err := client.RunTxn(ctx, func(ctx context.Context, tx *tikv.Txn) error {
//		stock, err := tx.GetForUpdate(ctx, []byte("stock"), tikv.WithLockWait(time.Second))
//		if err != nil {
//			return err
//		}
//		return tx.Put([]byte("stock"), append(stock, '-'))
//	}, tikv.WithPessimistic())
//
// [WithPessimisticAfter] makes RunTxn turn to locks where there are conflicts.
// [Client.LockWaits] tells who waits for whom.
//
// # Errors
//
// [errors.Is] with a sentinel asks what to do, [errors.As] with a type what happened. The
// types hold no protobuf, and texts show no keys unless [WithPlainKeys] is given.
//
//   - [ErrNotFound]: the key is absent. [Optional] makes it a nil value.
//   - [ErrInvalid], [ErrUnsupported], [ErrTooLarge]: the program is wrong, or its data too
//     large. Nothing was changed.
//   - [ErrWriteConflict], [ErrTxnAborted], [ErrDeadlock]: the transaction has not committed.
//     Run all of it again ([IsRetryable]), as RunTxn does.
//   - [ErrAlreadyExists], [ErrAssertion]: a key is not what [Txn.Insert], [Txn.CheckAbsent]
//     or [WithAssertion] say. Decide.
//   - [ErrLocked]: another transaction holds the lock that was not to be waited for, or no
//     longer. Try later, or give way.
//   - [ErrUndetermined]: the write may or may not have happened. Do not repeat it: ask
//     [Client.ResolveOutcome] what became of a transaction, read the key of a raw write.
//   - [ErrUnavailable]: no replica answered in time. [UnavailableError] lists the attempts.
//     Try later; [ErrDiskFull] is one kind of it.
//   - [ErrRejected]: TiKV refused, in the words of [ServerError]. Trying again is of no use.
//   - [ErrSnapshotTooOld]: what the snapshot shows may be collected. Take a new one, or
//     begin the transaction anew.
//   - [ErrCommitTSLag]: PD's clock is behind what [WithCommitAfter] demands. Try later.
//   - [ErrClosed], [ErrTxnDone], [ErrTxnBusy]: the client or the transaction was used after
//     its end, or by two calls at once.
//
// [NotSent] reports of any of them that nothing was changed, as is certain of most:
// a [BatchError] or [RangeError] may have done a part, and an undetermined error leaves it
// open.
//
//	err := client.RunTxn(ctx, pay)
//	if errors.Is(err, tikv.ErrUndetermined) {
//		at, err := client.ResolveOutcome(ctx, err)
//		if err != nil {
//			return err // still not known: ask again
//		}
//		fmt.Println("paid:", at != 0)
//	}
//
// # Views and options
//
// Options have one type for each family of calls: one that is given to the wrong call does
// not compile. Those of views ([ViewOption]: priority, origin, resource group, retries,
// interceptors) are the defaults of a client when given to Open. A view is cheap, and never
// changes; a changed view is a new one.
//
//	nightly := client.Raw(tikv.WithPriority(tikv.PriorityLow), tikv.WithRequestSource("nightly"))
//	near, err := client.Snapshot(ctx, tikv.WithReplicaRead(tikv.ReadNearest), tikv.WithMaxStaleness(5*time.Second))
//
// [WithReplicaRead] reads from other replicas than the leader and is as fresh;
// [WithMaxStaleness] and [WithStaleRead] are as fresh as they say, and quick.
//
// # Seeing in
//
// [WithLogger] gives the client a logger; by default it is silent. [WithHooks] shows every
// attempt, retry, transaction, connection and change of the topology to values of yours
// ([RPCHook], [RetryHook], [TxnHook], [ConnHook], [TopologyHook], [CloseHook]). An
// [Interceptor] may change or refuse what is sent. [Txn.Stats] and a [Recorder] say what a
// transaction or the calls of a view have cost, [Client.Stores] how the stores are.
//
//	type retries struct{ n atomic.Int64 }
//
//	func (r *retries) OnRetry(_ context.Context, info tikv.RetryInfo) { r.n.Add(1) }
//
// # Any request
//
// [Call], [CallRange] and [CallStream] send what has no call of its own, the coprocessor's
// requests say, with the client's routing, retries and encoding of keys. The types are
// kvproto's.
//
//	key := []byte("a")
//	resp, err := tikv.Call(ctx, client.RPC(), tikv.ToKey(tikv.KeyTxn, key),
//		tikvpb.TikvClient.MvccGetByKey, &kvrpcpb.MvccGetByKeyRequest{Key: key})
//
// # Testing
//
// Package tikvtest starts PD and stores within a test, in some milliseconds, and in fake
// time inside of testing/synctest. Faults come from the cluster, and the client is the one
// that you ship.
//
//	func TestLostAnswer(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			cluster := tikvtest.NewCluster(t)
//			client := cluster.Open()
//			cluster.Inject(playground.Fault{Method: "RawPut", DropAnswer: true, Times: 1})
//			if err := client.Raw().Put(t.Context(), []byte("k"), []byte("v")); err != nil {
//				t.Error(err) // 20 s later, which take no time, it is sent again
//			}
//		})
//	}
package tikv

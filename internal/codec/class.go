package codec

// class is what a field of a message is to the codec.
type class uint8

const (
	// Keys: wire keys in messages, user keys outside.
	key       class = iota + 1 // a key, or a list of keys; an empty one is a key too, but in an answer it is none
	optional                   // a key, or empty for none
	lower                      // the lower bound of a range; with Reverse the upper one
	upper                      // the upper bound, empty for none; with Reverse the lower one
	regionKey                  // a key in region form, perhaps with a version behind it; for information
	bounds                     // boundaries in region form, ascending; the first and the last may be empty

	// Of messages inside of messages.
	inRegion // its ranges are in region form
	chained  // ranges of which an empty end stands for the start of the next
	ours     // a list about a whole store: what is of other key spaces is left out

	// Of no key, but set by the walker.
	rawFlag // says whether the keys of the request are raw

	// No keys, and why.
	value   // what a key holds
	data    // plans and results of the coprocessor, of MPP and of system tables: theirs to read
	label   // an id, a tag or a checksum's salt
	foreign // keys of another system: TiFlash's own order of rows, files of an object store
)

// classes has every field of bytes of every message of TiKV's service, and the fields
// of other types that are treated in their own way. A test fails for a field of bytes
// that is not here.
//
// Where the form of keys is not what the name of the field suggests, the source says so:
// regions' boundaries are sent as PD holds them (raftstore errors.rs), as are the keys
// of a range whose regions are looked for (raftstore store/worker/check_leader.rs), and
// what lies outside of a region is named by its encoded form, with the version that was
// looked for (raftstore store/util.rs, check_key_in_region).
var classes = map[string]class{
	"kvrpcpb.Context.ResourceGroupTag": label,
	"kvrpcpb.Context.TraceId":          label,

	// Transactional requests.
	"kvrpcpb.GetRequest.Key":                            key,
	"kvrpcpb.ScanRequest.StartKey":                      lower,
	"kvrpcpb.ScanRequest.EndKey":                        upper,
	"kvrpcpb.BatchGetRequest.Keys":                      key,
	"kvrpcpb.BufferBatchGetRequest.Keys":                key,
	"kvrpcpb.PrewriteRequest.PrimaryLock":               key,
	"kvrpcpb.PrewriteRequest.Secondaries":               key,
	"kvrpcpb.Mutation.Key":                              key,
	"kvrpcpb.Mutation.Value":                            value,
	"kvrpcpb.PessimisticLockRequest.PrimaryLock":        key,
	"kvrpcpb.PessimisticRollbackRequest.Keys":           key,
	"kvrpcpb.TxnHeartBeatRequest.PrimaryLock":           key,
	"kvrpcpb.CheckTxnStatusRequest.PrimaryKey":          key,
	"kvrpcpb.CheckSecondaryLocksRequest.Keys":           key,
	"kvrpcpb.CommitRequest.Keys":                        key,
	"kvrpcpb.CommitRequest.PrimaryKey":                  optional,
	"kvrpcpb.CleanupRequest.Key":                        key,
	"kvrpcpb.BatchRollbackRequest.Keys":                 key,
	"kvrpcpb.ScanLockRequest.StartKey":                  lower,
	"kvrpcpb.ScanLockRequest.EndKey":                    upper,
	"kvrpcpb.ResolveLockRequest.Keys":                   key,
	"kvrpcpb.FlushRequest.PrimaryKey":                   optional,
	"kvrpcpb.DeleteRangeRequest.StartKey":               lower,
	"kvrpcpb.DeleteRangeRequest.EndKey":                 upper,
	"kvrpcpb.PrepareFlashbackToVersionRequest.StartKey": lower,
	"kvrpcpb.PrepareFlashbackToVersionRequest.EndKey":   upper,
	"kvrpcpb.FlashbackToVersionRequest.StartKey":        lower,
	"kvrpcpb.FlashbackToVersionRequest.EndKey":          upper,

	// Raw requests.
	"kvrpcpb.RawGetRequest.Key":              key,
	"kvrpcpb.RawGetKeyTTLRequest.Key":        key,
	"kvrpcpb.RawBatchGetRequest.Keys":        key,
	"kvrpcpb.RawPutRequest.Key":              key,
	"kvrpcpb.RawPutRequest.Value":            value,
	"kvrpcpb.RawDeleteRequest.Key":           key,
	"kvrpcpb.RawBatchDeleteRequest.Keys":     key,
	"kvrpcpb.RawDeleteRangeRequest.StartKey": lower,
	"kvrpcpb.RawDeleteRangeRequest.EndKey":   upper,
	"kvrpcpb.RawScanRequest.StartKey":        lower,
	"kvrpcpb.RawScanRequest.EndKey":          upper,
	"kvrpcpb.RawBatchScanRequest.Ranges":     chained, // TiKV src/storage/mod.rs, raw_batch_scan
	"kvrpcpb.RawCASRequest.Key":              key,
	"kvrpcpb.RawCASRequest.Value":            value,
	"kvrpcpb.RawCASRequest.PreviousValue":    value,
	"kvrpcpb.RawCoprocessorRequest.Data":     data,

	// Regions, stores, and what happened to a key.
	"kvrpcpb.SplitRegionRequest.SplitKey":        optional,
	"kvrpcpb.SplitRegionRequest.SplitKeys":       key,
	"kvrpcpb.SplitRegionRequest.IsRawKv":         rawFlag,
	"kvrpcpb.UnsafeDestroyRangeRequest.StartKey": lower,
	"kvrpcpb.UnsafeDestroyRangeRequest.EndKey":   upper,
	"kvrpcpb.PhysicalScanLockRequest.StartKey":   lower,
	"kvrpcpb.MvccGetByKeyRequest.Key":            key,
	"kvrpcpb.StoreSafeTSRequest.KeyRange":        inRegion,
	"kvrpcpb.ReadIndexRequest.Ranges":            inRegion,
	"kvrpcpb.CompactRequest.StartKey":            foreign,
	"kvrpcpb.CompactResponse.CompactedStartKey":  foreign,
	"kvrpcpb.CompactResponse.CompactedEndKey":    foreign,
	"kvrpcpb.TiFlashSystemTableResponse.Data":    data,
	"kvrpcpb.GetLockWaitInfoResponse.Entries":    ours,
	"kvrpcpb.GetLockWaitHistoryResponse.Entries": ours,
	"kvrpcpb.CheckLockObserverResponse.Locks":    ours,
	"kvrpcpb.PhysicalScanLockResponse.Locks":     ours,
	"kvrpcpb.SplitRegionResponse.Regions":        ours,
	"kvrpcpb.MvccGetByStartTsResponse.Key":       key,

	// Ranges.
	"kvrpcpb.KeyRange.StartKey":  lower,
	"kvrpcpb.KeyRange.EndKey":    upper,
	"coprocessor.KeyRange.Start": lower,
	"coprocessor.KeyRange.End":   upper,

	// Coprocessor and MPP.
	"coprocessor.Request.Data":                             data,
	"coprocessor.Response.Data":                            data,
	"coprocessor.StoreBatchTaskResponse.Data":              data,
	"coprocessor.BatchRequest.Data":                        data,
	"coprocessor.BatchResponse.Data":                       data,
	"coprocessor.BatchResponse.RetryRegions":               ours,
	"coprocessor.DelegateResponse.MemTableData":            data,
	"coprocessor.DelegateResponse.Snapshot":                data,
	"coprocessor.TiCIEstimateCountRequest.FtsQueryInfo":    data,
	"mpp.DispatchTaskRequest.EncodedPlan":                  data,
	"mpp.DispatchTaskResponse.RetryRegions":                ours,
	"mpp.MPPDataPacket.Data":                               data,
	"mpp.MPPDataPacket.Chunks":                             data,
	"mpp.ReportTaskStatusRequest.Data":                     data,
	"disaggregated.EstablishDisaggTaskRequest.EncodedPlan": data,
	"disaggregated.EstablishDisaggTaskResponse.Tables":     data,
	"disaggregated.PagesPacket.Pages":                      data,
	"disaggregated.PagesPacket.Chunks":                     data,
	"disaggregated.PagesPacket.Summaries":                  data,
	"disaggregated.TryAddLockRequest.DataFileKey":          foreign,
	"disaggregated.TryMarkDeleteRequest.DataFileKey":       foreign,

	// Answers.
	"kvrpcpb.KvPair.Key":                     key,
	"kvrpcpb.KvPair.Value":                   value,
	"kvrpcpb.GetResponse.Value":              value,
	"kvrpcpb.PessimisticLockResponse.Value":  value,
	"kvrpcpb.PessimisticLockResponse.Values": value,
	"kvrpcpb.PessimisticLockKeyResult.Value": value,
	"kvrpcpb.RawGetResponse.Value":           value,
	"kvrpcpb.RawCASResponse.PreviousValue":   value,
	"kvrpcpb.RawCoprocessorResponse.Data":    data,
	"kvrpcpb.LockInfo.Key":                   key,
	"kvrpcpb.LockInfo.PrimaryLock":           key,
	"kvrpcpb.LockInfo.Secondaries":           key,
	"kvrpcpb.MvccLock.Primary":               key,
	"kvrpcpb.MvccLock.Secondaries":           key,
	"kvrpcpb.MvccLock.ShortValue":            value,
	"kvrpcpb.MvccWrite.ShortValue":           value,
	"kvrpcpb.MvccValue.Value":                value,
	"kvrpcpb.MvccDebugInfo.Key":              key,
	"kvrpcpb.WriteConflict.Key":              key,
	"kvrpcpb.WriteConflict.Primary":          key,
	"kvrpcpb.AlreadyExist.Key":               key,
	"kvrpcpb.Deadlock.LockKey":               key,
	"kvrpcpb.Deadlock.DeadlockKey":           key,
	"kvrpcpb.Deadlock.WaitChain":             ours,
	"kvrpcpb.CommitTsExpired.Key":            key,
	"kvrpcpb.TxnNotFound.PrimaryKey":         key,
	"kvrpcpb.AssertionFailed.Key":            key,
	"kvrpcpb.TxnLockNotFound.Key":            key,
	"deadlock.WaitForEntry.Key":              key,
	"deadlock.WaitForEntry.ResourceGroupTag": label,

	// Region errors.
	"errorpb.KeyNotInRegion.Key":           regionKey,
	"errorpb.KeyNotInRegion.StartKey":      lower,
	"errorpb.KeyNotInRegion.EndKey":        upper,
	"errorpb.EpochNotMatch.CurrentRegions": ours,
	"errorpb.BucketVersionNotMatch.Keys":   bounds,
	"metapb.Region.StartKey":               lower,
	"metapb.Region.EndKey":                 upper,
	"encryptionpb.EncryptionMeta.Iv":       label,
}

// inRegionForm has the messages whose ranges are always those of regions.
var inRegionForm = map[string]bool{"errorpb.KeyNotInRegion": true, "metapb.Region": true}

// closedRanges has the messages whose ranges must have an end: TiKV takes an empty one for
// the smallest key (src/coprocessor/endpoint.rs, by Key::from_raw).
var closedRanges = map[string]bool{"coprocessor.KeyRange": true}

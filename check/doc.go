// Package check decides whether what callers were told can be true. Its tests record what
// clients are told by an embedded cluster that is disturbed meanwhile, and check it:
//
//   - calls on raw keys must be linearizable (package porcupine): Call, CheckCalls;
//   - transactions that read lists and append to them must be what snapshot isolation with
//     timestamps in real-time order allows: Txn, CheckTxns.
//
// What is not known to have happened may have happened at any later time, or never.
// A History can be written to a file and checked again.
package check

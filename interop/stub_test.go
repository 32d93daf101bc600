package interop

func gcArea() area          { return area{name: "gc"} }
func regionArea() area      { return area{name: "region"} }
func errorArea() area       { return area{name: "error"} }
func churnArea() area       { return area{name: "churn"} }
func pdArea() area          { return area{name: "pd"} }
func keyspaceArea() area    { return area{name: "ks"} }

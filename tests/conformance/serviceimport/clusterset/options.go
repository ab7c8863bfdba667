// Package clusterset is what tests of a ClusterSet stand on: its clusters, what they export, requests from a pod and who
// answered them. It works through the APIs of Kubernetes, of Gateway API and of MCS alone, whoever implements the latter two.
package clusterset

import (
	"flag"
	"fmt"
	"regexp"
	"strings"
	"time"

	"sigs.k8s.io/gateway-api/conformance"
)

// Contexts and DNS domain are named as in the conformance suite of the MCS API.
var (
	contextsFlag = flag.String("contexts", "",
		"Contexts of the kubeconfig for the two clusters, with a comma between them. Clients and routes are in the first")
	clusterIDsFlag = flag.String("cluster-ids", "",
		"Ids of the two clusters in the ClusterSet, as the MCS provider writes them (default: the names of the contexts)")
	dnsDomainFlag     = flag.String("dns-domain", "clusterset.local", "DNS domain of the ClusterSet")
	echoImageFlag     = flag.String("echo-image", "", "Image of the echo server (default: the one of upstream's mesh manifests)")
	importTimeoutFlag = flag.Duration("import-timeout", time.Minute, "How long the MCS provider may take to import what is exported")
)

// Options say which clusters there are and how they are used.
type Options struct {
	Contexts, IDs [2]string
	DNSDomain     string
	EchoImage     string
	ImportTimeout time.Duration
}

// FromFlags are the options as the command line has them.
func FromFlags() (Options, error) {
	options := Options{DNSDomain: *dnsDomainFlag, EchoImage: *echoImageFlag, ImportTimeout: *importTimeoutFlag}
	var err error
	if options.Contexts, err = pair("contexts", *contextsFlag); err != nil {
		return options, err
	}
	options.IDs = options.Contexts
	if *clusterIDsFlag != "" {
		if options.IDs, err = pair("cluster-ids", *clusterIDsFlag); err != nil {
			return options, err
		}
	}
	if options.EchoImage == "" {
		options.EchoImage, err = upstreamEchoImage()
	}
	return options, err
}

func pair(name, text string) ([2]string, error) {
	first, second, found := strings.Cut(text, ",")
	if !found || first == "" || second == "" || first == second || strings.Contains(second, ",") {
		return [2]string{}, fmt.Errorf("--%s=%q: two different names with a comma between them are needed", name, text)
	}
	return [2]string{first, second}, nil
}

// The same image as upstream's suite of the same version: what runs the one can run the other.
func upstreamEchoImage() (string, error) {
	manifests, err := conformance.Manifests.ReadFile("mesh/manifests.yaml")
	if err != nil {
		return "", err
	}
	image := regexp.MustCompile(`image:\s*(\S*echo-advanced\S*)`).FindSubmatch(manifests)
	if image == nil {
		return "", fmt.Errorf("upstream's mesh manifests name no image echo-advanced: --echo-image is needed")
	}
	return string(image[1]), nil
}

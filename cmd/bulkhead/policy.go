package main

import (
	"github.com/spf13/cobra"
)

func (a *app) policy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Generate, lint, test, preview, apply and show policies",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.policyGenerate(), a.policyLint(), a.policyDiff(), a.policyApply(), a.policyGet(), a.policyDelete())
	cmd.AddCommand(a.policyVerdicts(), a.policyTest(), a.policySimulate(), a.policyExplain())
	cmd.AddCommand(a.policyConvert(), a.policyEngines(), a.policySchema())
	cmd.AddCommand(a.policyShadow(), a.policyPromote(), a.policyConfirm(), a.policyHistory(), a.policyRollback())
	cmd.AddCommand(a.policyKeygen(), a.policySign(), a.policyVerify())
	return cmd
}

// filesFlag adds the -f that commands about files share.
func filesFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringSliceVarP(files, "file", "f", nil, "a file, a folder of .yaml files, or - for standard input; may be repeated")
	if err := cmd.MarkFlagFilename("file", "yaml", "yml", "json"); err != nil {
		panic(err)
	}
}

// needFiles is the usage error of a command that got no -f.
func needFiles(cmd *cobra.Command, files []string) error {
	if len(files) == 0 {
		return usage(cmd, "%s: no policies given, want -f FILE, -f FOLDER or -f -", cmd.CommandPath())
	}
	return nil
}
